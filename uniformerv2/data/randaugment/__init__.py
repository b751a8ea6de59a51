"""RandAugment: the published operations, on PIL pictures as published, or all in a few passes after the crop."""
