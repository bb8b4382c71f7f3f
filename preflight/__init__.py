"""What AWS says before ``pulumi up`` and after ``pulumi destroy``: read-only checks of an account against a plan."""
