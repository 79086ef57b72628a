"""JSON Schema: made from types, made fit for grammars, checked; and what constrains a reply."""
