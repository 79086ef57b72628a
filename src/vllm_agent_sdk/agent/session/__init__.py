"""Conversations of several runs: opened, steered, watched, rewound, closed."""
