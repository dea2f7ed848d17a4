"""Images and containers: how they are built, what they are, how a program runs in one."""
