"""Toys to export: with a trained branch, and with all that adds inputs to the graphs."""

from toy import randomise, toy_branch, toy_model

from hiptrack.models.challenge import AttentionFusion


def branch_model(**changes):
    """A toy whose branch is no longer idle."""
    model = toy_model(challenge=lambda **widths: toy_branch(**widths, **changes), seed=3)
    randomise(model.challenge, seed=5)
    return model


def special_model():
    """A toy with all that adds inputs to the graphs: voters under the box, the class token, a fusion that differs by place."""
    model = toy_model(
        challenge=lambda **widths: toy_branch(
            **widths, feature="class_token", fusion=AttentionFusion, activation="sigmoid"
        ),
        class_token=True,
        elimination_template="box",
        neck_width=24,
        patch=16,
    )
    randomise(model.challenge, seed=5)
    return model
