"""What runs leave behind, and what may be concluded from it."""
