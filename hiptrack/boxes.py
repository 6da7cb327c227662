"""Box conversions and overlaps on tensors of shape [..., 4].

The format stands in every name: `xywh` (left, top, width, height), `xyxy` (left, top, right,
bottom) and `cxcywh` (centre, width, height). Units are those of the input.
"""

import torch


def xywh_to_xyxy(xywh):
    """[..., 4] xywh -> [..., 4] xyxy."""
    x, y, w, h = xywh.unbind(-1)
    return torch.stack((x, y, x + w, y + h), -1)


def xyxy_to_xywh(xyxy):
    """[..., 4] xyxy -> [..., 4] xywh."""
    x1, y1, x2, y2 = xyxy.unbind(-1)
    return torch.stack((x1, y1, x2 - x1, y2 - y1), -1)


def cxcywh_to_xyxy(cxcywh):
    """[..., 4] cxcywh -> [..., 4] xyxy."""
    cx, cy, w, h = cxcywh.unbind(-1)
    return torch.stack((cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h), -1)


def xywh_to_cxcywh(xywh):
    """[..., 4] xywh -> [..., 4] cxcywh."""
    x, y, w, h = xywh.unbind(-1)
    return torch.stack((x + 0.5 * w, y + 0.5 * h, w, h), -1)


def iou_and_giou(a_xyxy, b_xyxy):
    """Row-wise IoU and generalised IoU (Rezatofighi et al., CVPR 2019) of two [..., 4] xyxy tensors.

    Returns two tensors [...]; empty unions give 0 rather than NaN.
    """
    tiny = torch.finfo(a_xyxy.dtype).tiny
    area_a = (a_xyxy[..., 2:] - a_xyxy[..., :2]).prod(-1)
    area_b = (b_xyxy[..., 2:] - b_xyxy[..., :2]).prod(-1)
    overlap = torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    intersection = overlap.clamp(min=0).prod(-1)
    union = area_a + area_b - intersection
    iou = intersection / union.clamp(min=tiny)
    hull = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    hull = hull.prod(-1)
    return iou, iou - (hull - union) / hull.clamp(min=tiny)
