"""One verdict for each experiment, over HTTP: gathered from nodes, kept on disk, asked by rollouts."""
