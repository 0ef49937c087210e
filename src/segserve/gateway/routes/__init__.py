"""One module per API family; each translates to and from the one SegmentRequest."""
