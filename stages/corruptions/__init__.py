"""What inputs are made worse by in training, so that they are like those of use."""
