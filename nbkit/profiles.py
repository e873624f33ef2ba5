"""Profiles: named starting points of a `RunConfig`.  `paper` keeps the printed recipe; the others say where they depart.

Departures of `demo` and `laptop`, each one parameter away from the printed form: AdamW for SGD and few epochs (small
networks, small data); no stage 1; a projection head in front of Eqs. 1-4, because they pull the same features apart that
Eqs. 5-8 pull together; the mean of logs for Eq. 1's two positives, because their sum has a trivial solution; BatchNorm
statistics per domain; a smaller alpha, because the printed sum of four terms (13 nats at chance with k = 256) drowns the
cross-entropy; a smaller beta that grows over stage 3, and a single K-means update, because wrong pseudo-labels pull hard.
beta, its growth and the number of updates were chosen on the renderer's validation draw of the target (EVAL_SPLIT =
"val"), with that draw's labels, never on a test draw.  The comparison methods were not tuned at all: read STCDA's margin
over them in the demo tables with that in mind.  The laptop tables take the same values over, chosen on none of their data.
"""

PAPER = {
    "backbone": "bn_inception", "clips": 3, "frames": 16, "cache_size": 256, "crop": 224, "flow_clip": 20.0,
    "feature_dim": 512, "aggregation": "gru", "alpha": 2.0, "beta": 0.5, "tau": 0.07, "nce_k": 1024,
    "optimizer": "sgd", "lr": (0.01, 0.01, 0.001), "epochs": (300, 300, 400), "lr_steps": (100, 200),
    "weight_decay": 1e-7, "batch": 64,
}

DEMO = {
    "backbone": "small", "clips": 3, "frames": 8, "frame_stride": 1, "cache_size": 48, "crop": 40, "flow_clip": 8.0,
    "feature_dim": 128, "aggregation": "gru", "head": "mlp", "bn_mode": "per_domain",
    "alpha": 0.1, "beta": 0.1, "beta_schedule": "ramp", "kmeans_iterations": 1, "tau": 0.1, "nce_k": 256, "bank_init": "forward",
    "multi_pos": "mean_of_logs", "video_neg_modality": "other",
    "optimizer": "adamw", "lr": (4e-3, 4e-3, 2e-3), "epochs": (0, 8, 8), "lr_steps": (), "lr_schedule": "cosine",
    "weight_decay": 1e-4, "grad_clip": 5.0, "batch": 32, "cas_classes": 8, "cas_per_class": 2,
}

LAPTOP = {
    **DEMO, "benchmark": "jhmdb_camera", "source": "static", "target": "moving", "backbone": "mobilenet_features",
    "cache_size": 160, "crop": 160, "flow_clip": 20.0, "dropout": 0.5, "cas_classes": 10, "cas_per_class": 3,
    "batch": 64,
    "epochs": (0, 10, 10), "lr": (1e-3, 1e-3, 5e-4), "weight_decay": 1e-2,
}

PROFILES: dict[str, dict] = {
    "paper": PAPER,
    "short": {**PAPER, "epochs": (30, 30, 40), "lr_steps": (10, 20)},
    "features": {**PAPER, "backbone": "mobilenet_features", "epochs": (30, 30, 40), "lr_steps": (10, 20)},
    "demo": DEMO,
    "laptop": LAPTOP,
    "smoke": {**DEMO, "demo_train": 4, "demo_test": 4, "epochs": (1, 1, 1), "nce_k": 16, "batch": 16, "cas_classes": 4,
              "cas_per_class": 2, "crop": 32, "frames": 4, "feature_dim": 16},
}
