"""One function a command: reads its options, builds what is needed and hands over to the rooms below."""
