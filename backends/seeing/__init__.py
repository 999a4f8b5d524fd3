"""What backends share whose models look at pictures: a worker process that decodes what strangers send, and how it is asked."""
