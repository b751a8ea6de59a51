"""Where videos come from: one module or package a kind of source; ``chosen`` names them."""
