"""Playing without a screen: what the window, the page and the recordings share."""
