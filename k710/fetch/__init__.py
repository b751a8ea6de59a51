"""Lists and videos from the network, whole or not at all; and archives read so that they can do no harm."""
