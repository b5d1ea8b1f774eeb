"""The `lyrics` command."""
