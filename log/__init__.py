"""The partitioned log: segments, topics, producers and consumers, in Kafka's file formats."""
