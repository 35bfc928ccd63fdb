"""Arguments of an estimator that is fitted in seconds."""

SMALL = {
    "num_blocks": 1,
    "num_components": 4,
    "hidden": (8,),
    "num_steps": 50,
    "rotation": "pca",
    "tails": False,
    "marginals": False,
    "radial": False,
    "clusters": 0,
    "random_state": 0,
}
