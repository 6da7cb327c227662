"""For every parameter of every configurable, another value that must make a difference (test_every_parameter.py)."""

from training_runs import TOY_BRANCH, TOY_MODEL

from hiptrack.taxonomy import CLASSES, CV, VLM

PLAIN = [*TOY_MODEL, "CausalSampler.search_frames=2"]
TOY = [*PLAIN, *TOY_BRANCH, "TrackerWeights.path=None"]
PARTS = [*(line for line in TOY_MODEL if line.startswith("Backbone.") and "depth" not in line), *TOY_BRANCH]
TRACKING = "Stage.losses=[@GIoULoss(), @L1Loss(), @CenterFocalLoss()]"
TIMM = ["train.initial_weights=[@TimmWeights()]", "TimmWeights.name=vit_tiny_patch16_224"]
RULES = ("Adaptation.rules=[@occlusion/Rule(), @low_score/Rule(), @scale/Rule()]", "Adaptation.size_rate=0.7")
RULES += ("low_score/Rule.write_memory=False", "low_score/Rule.search_scale=1.3", "low_score/Rule.size_rate=None")

SWAPPED = [CLASSES[1], CLASSES[0], *CLASSES[2:]]
REVERSED = dict(zip(VLM, reversed(VLM.values()), strict=True))
CROSSED = {**CV, "low_res": "low_contrast", "low_contrast": "low_resolution"}
FEW = "few/Taxonomy.classes=['hidden', 'clear'] & few/Taxonomy.vlm={'occlusion': 'hidden'} & few/Taxonomy.cv={}"

# {(file below experiments/, overrides): lines}, or "evaluate" for hiptrack eval. A line is NAME=VALUE, and after "&" what that
# value needs. Where one class alone fits, a scope stands for another one: @wide/CenterHead (what scopes would hide of TOY is
# not in PARTS). With HIPTrack.search_factor = 2 a toy target is larger than a cell, so that its heat map has a slope.
TABLE = {
    ("two_stage", *TOY): f"""
        train.stages=[@branch/Stage()]
        train.annotations=data/few
        train.seed=1
        train.deterministic=False
        train.mixed_precision=bf16
        train.tf32=False
        train.workers=1
        train.loader_timeout=60.0
        train.max_unreadable=0.5
        train.log_every=1
        train.save_steps=5
        train.save_minutes=1.0
        train.keep_checkpoints=1
        train.pictures=0
        TrackerWeights.path=toy.safetensors
        Validation.data=@FolderDataset()
        Validation.every=2
        Validation.tracker=@wide/Tracker & wide/Tracker.margin=110
        Validation.sequences=1
        Validation.batch=2
        Validation.allow_test_selection=True
        Tracker.branch=on
        Tracker.memory=@MemoryPolicy() & MemoryPolicy.interval=2
        Tracker.margin=110
        Tracker.precision=bf16
        Tracker.compile=True
        Tracker.adaptation=@Adaptation() & Adaptation.rules=[] & Adaptation.size_rate=0.5
        Stage.data=@grey/ClipData & grey/Augmentation.grey=1.0
        Stage.losses=[@GIoULoss(), @L1Loss(), @CenterFocalLoss()]
        branch/Stage.epochs=20
        branch/Stage.lr=1e-2
        Stage.batch=16
        Stage.clips=320
        branch/Stage.trainable=['challenge', 'box_head']
        Stage.lr_multipliers={{'challenge': 0.1}}
        finetune/Stage.layer_decay=0.5
        Stage.optimizer=@SGD
        Stage.schedule=@CosineSchedule()
        Stage.keep_ratio=@KeepRatioSchedule()
        Stage.grad_clip=1e-3
        Stage.largest_pass=8
        finetune/Stage.activation_checkpointing=True
        AdamW.weight_decay=0.5
        AdamW.betas=(0.5, 0.9)
        ClipData.datasets=[@eval/FolderDataset()]
        ClipData.priority=@HardExamples()
        ClipData.augmentation=@grey/Augmentation() & grey/Augmentation.grey=1.0
        ClipData.reduced_decoding=False
        CausalSampler.search_frames=3
        CausalSampler.max_gap=1
        Augmentation.grey=1.0
        Augmentation.flip=0.0
        Augmentation.brightness=0.5
        Augmentation.scale_jitter=0.1
        Augmentation.centre_jitter=1.0
        FolderDataset.root=data/swapped
        branch/FolderDataset.split=val
        FolderDataset.annotations=data/few
        branch/FolderDataset.include=['world_train_0001', 'world_train_0002']
        branch/FolderDataset.exclude=['world_train_0001', 'world_train_0002']
        FolderDataset.name=sea
        GIoULoss.weight=1.0
        L1Loss.weight=1.0
        CenterFocalLoss.weight=2.0
        CenterFocalLoss.alpha=3.0
        ChallengeLoss.weight=0.5
        ChallengeLoss.kind=focal
        ChallengeLoss.class_weights=balanced
        Taxonomy.classes={SWAPPED}
        Taxonomy.vlm={REVERSED}
        Taxonomy.cv={CROSSED}
        HIPTrack.neck_width=16
        HIPTrack.template_factor=3.0
        HIPTrack.search_factor=4.0
        Backbone.name=vit_base_patch16_clip_224
        Backbone.template_size=48
        Backbone.search_size=96
        Backbone.width=48
        Backbone.depth=3
        Backbone.heads=4
        Backbone.patch=16
        Backbone.patch_embed=@ConvStem
        Backbone.class_token=True
        Backbone.elimination_blocks=(0,)
        Backbone.keep_ratio=0.4
        Backbone.elimination_template=all
        Backbone.drop_path=0.3
        HistoricalPrompt.key_width=16
        HistoricalPrompt.trunk_width=16
        CenterHead.widths=(8, 4)
        ChallengeBranch.hidden_width=24
        ChallengeBranch.fusion_width=16
        ChallengeBranch.dropout=0.5
        ChallengeBranch.fusion=@GatedFusion
        ChallengeBranch.momentum=0.9
    """,
    ("two_stage", *TOY, "train.validation=None"): "train.validation=@Validation()",
    ("two_stage", *TOY, TRACKING, "HIPTrack.search_factor=2.0", "Tracker.branch=on"): f"""
        CenterFocalLoss.beta=2.0
        ChallengeBranch.taxonomy=@few/Taxonomy() & {FEW}
        ChallengeBranch.activation=sigmoid
    """,
    ("from_scratch", *PARTS): """
        train.initial_weights=[@TimmWeights()] & TimmWeights.name=vit_base_patch16_224.mae
        HIPTrack.backbone=@wide/Backbone & wide/Backbone.depth=3
        HIPTrack.history=@wide/HistoricalPrompt & wide/HistoricalPrompt.key_width=16
        HIPTrack.head=@wide/CenterHead & wide/CenterHead.widths=(16,)
    """,
    ("two_stage", *TOY, "ChallengeLoss.kind=label_smoothing"): "ChallengeLoss.smoothing=0.3",
    ("two_stage", *TOY, "ClipData.datasets=[@FolderDataset(), @eval/FolderDataset()]"): "ClipData.ratios=[0.0, 1.0]",
    ("two_stage", *TOY_MODEL, *TOY_BRANCH, *TIMM): "TimmWeights.name=vit_base_patch16_224.mae",
    ("two_stage", *PLAIN, *TOY_BRANCH, "TrackerWeights.path=toy.safetensors"): "TrackerWeights.branch=False",
    ("smoothed", *TOY, "Tracker.memory=@MemoryPolicy()"): """
        Tracker.smoothing=0.5
        MemoryPolicy.template_frames=12
        MemoryPolicy.early=(3, 7)
        MemoryPolicy.interval=2
        MemoryPolicy.capacity=1
    """,
    ("adaptive", *TOY, *RULES): """
        Adaptation.rules=[@low_score/Rule(), @more/Rule()] & more/Rule.score_below=1.0 & more/Rule.size_rate=0.1
        Adaptation.size_rate=0.2
        occlusion/Rule.challenge=normal
        occlusion/Rule.above=0.0
        low_score/Rule.score_below=0.01
        low_score/Rule.write_memory=True
        low_score/Rule.search_scale=2.0
        low_score/Rule.size_rate=0.4
    """,
    ("ablate/multi_label_bce", *TOY): "MultiLabelChallengeLoss.kind=asymmetric",
    ("multi_label", *TOY): """
        MultiLabelChallengeLoss.weight=0.5
        MultiLabelChallengeLoss.gamma_positive=1.0
        MultiLabelChallengeLoss.gamma_negative=2.0
        MultiLabelChallengeLoss.margin=0.2
    """,
    ("consistent", *TOY, "ChallengeLoss.kind=focal"): """
        ChallengeLoss.alpha=0.5
        ChallengeLoss.gamma=1.0
        ConsistencyLoss.weight=1.0
        ConsistencyLoss.max_gap=1
    """,
    ("hard_examples", *TOY): """
        HardExamples.exponent=2.0
        HardExamples.uniform=0.5
        HardExamples.inertia=0.9
    """,
    ("ablate/attention_fusion", *TOY, "Backbone.class_token=True"): """
        ChallengeBranch.feature=class_token
        AttentionFusion.tokens=2
        AttentionFusion.heads=2
    """,
    ("ablate/random_interval", *TOY_MODEL, *TOY_BRANCH, "TrackerWeights.path=None"): """
        ClipData.sampler=@CausalSampler()
        RandomIntervalSampler.search_frames=3
        RandomIntervalSampler.max_gap=6
    """,
    ("ablate/sgd", *TOY, "Stage.schedule=@CosineSchedule()"): """
        SGD.momentum=0.5
        SGD.weight_decay=0.5
        CosineSchedule.warmup_epochs=3
        CosineSchedule.final=0.2
    """,
    ("ablate/lamb", *TOY, "Stage.schedule=@PolynomialSchedule()"): """
        TimmOptimizer.name=lion
        TimmOptimizer.weight_decay=0.5
        TimmOptimizer.betas=(0.5, 0.9)
        PolynomialSchedule.power=2.0
        PolynomialSchedule.warmup_epochs=2
        PolynomialSchedule.final=0.1
    """,
    ("ablate/restarts", *TOY): """
        TimmSchedule.name=tanh
        TimmSchedule.cycles=2
        TimmSchedule.cycle_decay=0.8
        TimmSchedule.warmup_epochs=2
        TimmSchedule.final=0.1
    """,
    ("hiptrack_got10k", *PLAIN, "BackboneWeights.path=None"): """
        HIPTrack.challenge=@ChallengeBranch & ChallengeBranch.hidden_width=16
        BackboneWeights.path=vit.pth
        tracker/StepSchedule.milestones=(3,)
        StepSchedule.factor=0.5
        tracker/KeepRatioSchedule.start=40
        tracker/KeepRatioSchedule.length=40
    """,
    ("nano", *PARTS, "train.stages=[@hard/Stage()]"): """
        World.seed=1
        World.scenes=5
        World.frames=20
        World.canvas=32
        World.textures=['marble']
        World.shapes=['glyph']
        World.sizes=(60.0, 90.0)
        World.speed=2.0
        World.camera=1.0
        World.deformation=1.0
        World.lookalikes=3.0
        World.clutter=1.0
        World.camouflage=1.0
        World.occlusion=1.0
        World.cut=1.0
        World.light=1.0
        World.weather=1.0
        World.blur=1.0
        World.noise=1.0
        World.compression=1.0
        World.sea=1.0
        World.name=earth
    """,
    ("evaluate",): """
        evaluate.tracker=@wide/Tracker & wide/Tracker.margin=110
        evaluate.batch=2
    """,
}
