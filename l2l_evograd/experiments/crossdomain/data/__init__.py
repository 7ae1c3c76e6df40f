"""Images and episodes, and the code that reads them."""
