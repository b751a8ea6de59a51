"""What the headers of coded pictures say, codec by codec: where decoding can begin and what can be left out."""
