"""What backends share whose models see or make pictures: a worker process that decodes what strangers send, how it is asked, and where it computes."""
