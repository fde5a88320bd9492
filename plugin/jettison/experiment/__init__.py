"""Which of two models is better on live traffic, decided from counters, whenever anyone looks."""
