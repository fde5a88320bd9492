"""How a verdict moves traffic: the objects of rollout controllers, as pure functions of one plan."""
