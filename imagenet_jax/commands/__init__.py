"""The commands: flags in, one library call, print."""
