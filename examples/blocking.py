"""The same without `await`: a script that prints what comes, and ends well at Ctrl-C."""

from vllm_agent_sdk import Agent, Sampling

agent = Agent(sampling=Sampling(max_tokens=200))
run = agent.stream_sync("Tell a short story of the sea.")
try:
    for text in run.text_deltas():
        print(text, end="", flush=True)
except KeyboardInterrupt:
    run.interrupt()  # it was, if it was waited for just then
print(f"\n[{run.result.stop_reason}, {run.result.usage.output_tokens} tokens]")
