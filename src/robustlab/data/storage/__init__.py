"""Encoded and decoded images on disk: cache, shards, copies on node-local storage."""
