"""One training loop for all models; what differs between studies is a Task (training/tasks/)."""
