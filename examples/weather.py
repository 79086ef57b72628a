"""An agent with a tool, on the vLLM server that VLLM_BASE_URL names."""

from vllm_agent_sdk import Agent, Sampling, tool


@tool
async def get_weather(city: str) -> dict[str, object]:
    """Get the current weather of a city."""
    return {"city": city, "temperature_c": 21}


agent = Agent(tools=[get_weather], sampling=Sampling(temperature=0))
result = agent.run_sync("What is the temperature in Paris?")
print(result.text)
print(result.tool_calls, result.usage.total_tokens, "tokens")
