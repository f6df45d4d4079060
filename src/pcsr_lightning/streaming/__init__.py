"""Any convolutional network, row by row in bounded memory; knows torch alone."""
