"""One module per form in which annotation lists are published: bytes to text columns, nothing checked yet."""
