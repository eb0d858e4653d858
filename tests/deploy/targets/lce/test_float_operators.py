"""Every operator of the table, between two binary layers, through LCE's real converter.

A network is upright or turned by 180°, as its first binary layer wants it; an operator that
tells left from right must be right in both. ONNX Runtime says what is right.
"""

import os
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.load import load_graph
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.float_operators import OPERATORS
from bibench_deploy.verify.parity import Observation, compare, seeded_inputs

RNG = np.random.default_rng(17)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


def numbers(*shape: int):
    return RNG.standard_normal(shape)


def ints(*values: int):
    return np.array(values, np.int64)


ARRAYS = {
    "c": numbers(8, 1, 1),
    "c4": RNG.uniform(0.5, 2, (1, 8, 1, 1)),
    "c8": numbers(8),
    "place": numbers(1, 1, 6, 8),
    "column": numbers(6, 1),
    "line": numbers(8),
    "whole": numbers(1, 8, 6, 8),
    "plane": numbers(8, 6, 8),
    "one_plane": numbers(1, 2, 6, 8),
    "k": 0.7,
    "low": -0.5,
    "high": 0.8,
    "zero": 0.0,
    "six": 6.0,
    "one": 1.0,
    "two": 2.0,
    "minus": -1.0,
    "three": 3.0,
    "half": 0.5,
    "big": 50.0,
    "tenth": 0.1,
    "slopes": numbers(8, 1, 1),
    "slope": 0.3,
    "slope_map": numbers(8, 6, 8),
    "slope_line": numbers(8),
    "gamma": numbers(8),
    "beta": numbers(8),
    "mu": numbers(8),
    "var": RNG.uniform(0.5, 2, 8),
    "g_map": numbers(8, 6, 8),
    "b_map": numbers(8, 6, 8),
    "g_last": numbers(8),
    "b_last": numbers(8),
    "v": numbers(5, 384),
    "vb": numbers(5),
    "vt": numbers(384, 5),
    "u": numbers(5, 8),
    "u_b": numbers(1, 5),
    "last": numbers(8, 5),
    "batch": numbers(8, 8, 3),
    "left": numbers(4, 6),
    "left_row": numbers(3, 1),
    "square": numbers(5, 5),
    "i0": ints(0),
    "i1": ints(1),
    "i2": ints(2),
    "i3": ints(3),
    "hw": ints(2, 3),
    "wh": ints(-1, -2),
    "chw": ints(1, 2, 3),
    "cw": ints(1, 3),
    "all_axes": ints(0, 1, 2, 3),
    "i02": ints(0, 2),
    "to_row": ints(1, -1),
    "to_tokens": ints(1, 8, 48),
    "to_groups": ints(1, 2, 4, 6, 8),
    "to_map": ints(1, 8, 6, 8),
    "to_other_map": ints(1, 4, 12, 8),
    "to_batch": ints(8, 48),
    "to_seven": ints(1, 8, 3, 2, 2, 2, 2),
    "back_from_seven": ints(1, 8, 6, 8),
    "st_h": ints(1, 2),
    "en_h": ints(5, 8),
    "ax_h": ints(2, 3),
    "sp_h": ints(2, 3),
    "st_back": ints(-1, -1),
    "en_back": ints(-100, -100),
    "sp_back": ints(-1, -2),
    "st_c": ints(1),
    "en_c": ints(100),
    "sp_c": ints(3),
    "three_rows": ints(3),
    "sizes": ints(1, 3, 2),
    "sizes_c": ints(3, 5),
    "amounts": ints(0, 0, 1, 0, 0, 1, 2, 3),
    "two_amounts": ints(1, 0, 2, 3),
    "cut": ints(0, 0, -1, 1, 0, 0, 2, -2),
    "channel_amounts": ints(0, 1, 0, 0, 0, 2, 0, 0),
    "twice": ints(1, 1, 2, 3),
    "to_wide": ints(1, 8, 6, 8),
    "batch_of_one": ints(2, 1, 1),
    "pick": ints(3, 1, 1),
    "pick_one": np.array(2, np.int64),
    "pick_grid": np.array([[0, 5], [2, 1]]),
    "x2": np.array([1, 1, 2, 2], np.float32),
    "x3_2": np.array([1, 1, 3, 2], np.float32),
    "x_frac": np.array([1, 1, 1.5, 0.75], np.float32),
    "to_size": ints(1, 8, 9, 4),
    "t3": numbers(8, 6, 3, 3),
    "t2": numbers(8, 6, 2, 2),
    "t4": numbers(8, 6, 4, 4),
    "t1": numbers(8, 6, 1, 1),
    "tg": numbers(8, 3, 3, 3),
    "tb": numbers(6),
    "out_size": ints(),
    "f1": numbers(2, 8, 1, 1),
}

# The map h that bodies read is [1, 8, 6, 8]; they end in y. A body may ask for its opset.
BODIES = {
    "Abs": ["y = Abs(h)"],
    "Add": [
        "y = Add(h, c)",
        "y = Add(c, h)",
        "r = Relu(h)  y = Add(h, r)",
        "y = Add(h, k)",
        "y = Add(h, place)",
        "y = Add(h, column)",
        "y = Add(h, line)",
        "y = Add(h, whole)",
        "y = Add(plane, h)",
        "a = Mul(h, c)  b = Relu(a)  y = Add(b, place)",
        "p = GlobalAveragePool(h)  y = Add(p, whole)",
        "p = GlobalMaxPool(h)  y = Add(h, p)",
        "m = ReduceMean<keepdims=0>(h, chw)  q = Unsqueeze(m, i0)  y = Add(h, q)",
        "t = Reshape(h, to_tokens)  z = ReduceMean(t, i1)  y = Add(t, z)",
    ],
    "And": ["a = Greater(h, low)  b = Less(h, high)  q = And(a, b)  y = Cast<to=1>(q)"],
    # What is the same at two places has no one place of its largest number.
    "ArgMax": [
        "d = Add(h, whole)  a = ArgMax<axis=1>(d)  y = Cast<to=1>(a)",
        "d = Add(h, whole)  a = ArgMax<axis=2>(d)  y = Cast<to=1>(a)",
        "d = Add(h, whole)  a = ArgMax<axis=-1, keepdims=0>(d)  y = Cast<to=1>(a)",
        "d = Add(h, whole)  f = Flatten(d)  a = ArgMax<axis=1>(f)  y = Cast<to=1>(a)",
    ],
    "ArgMin": ["d = Add(h, whole)  a = ArgMin<axis=3>(d)  y = Cast<to=1>(a)"],
    "BatchNormalization": [
        "y = BatchNormalization<epsilon=0.001>(h, gamma, beta, mu, var)",
        "r = Relu(h)  y = BatchNormalization(r, gamma, beta, mu, var)",
        "p = ReduceMean<keepdims=0>(h, hw)  y = BatchNormalization(p, gamma, beta, mu, var)",
        "t = Reshape(h, to_tokens)  y = BatchNormalization(t, gamma, beta, mu, var)",
        (
            "t = Reshape(h, to_tokens)  u = Softmax(t)"
            "  y = BatchNormalization(u, gamma, beta, mu, var)"
        ),
    ],
    "Cast": ["a = Cast<to=6>(h)  y = Cast<to=1>(a)", "a = Cast<to=9>(h)  y = Cast<to=1>(a)"],
    "Ceil": ["y = Ceil(h)"],
    "Celu": ["y = Celu<alpha=0.6>(h)"],
    "Clip": [
        "y = Clip(h, low, high)",
        "y = Clip(h, zero, six)",
        "y = Clip(h, low)",
        "y = Clip(h, zero)",
        "y = Clip(h, , high)",
        "y = Clip(h, minus, one)",
    ],
    "Concat": [
        "r = Relu(h)  y = Concat<axis=1>(h, r)",
        "r = Relu(h)  y = Concat<axis=2>(h, r)",
        "r = Relu(h)  t = Tanh(h)  y = Concat<axis=-1>(h, r, t)",
        "y = Concat<axis=1>(h, one_plane)",
        "y = Concat<axis=3>(whole, h)",
        "f = Flatten(h)  r = Relu(f)  y = Concat<axis=1>(f, r)",
        "t = Reshape(h, to_tokens)  y = Concat<axis=1>(t, t)",
    ],
    "Cos": ["y = Cos(h)"],
    "CumSum": [
        "y = CumSum(h, axis_1)",
        "y = CumSum<exclusive=1>(h, axis_3)",
        "y = CumSum<reverse=1>(h, axis_3)",
    ],
    "DepthToSpace": [
        "y = DepthToSpace<blocksize=2>(h)",
        'y = DepthToSpace<blocksize=2, mode="CRD">(h)',
    ],
    "Div": [
        "y = Div(h, c4)",
        "a = Add(h, big)  y = Div(c, a)",
        "a = Add(h, big)  y = Div(h, a)",
        "y = Div(h, place)",
    ],
    "Elu": ["y = Elu<alpha=0.7>(h)", "y = Elu(h)"],
    "Equal": ["r = Relu(h)  q = Equal(h, r)  y = Cast<to=1>(q)"],
    "Erf": ["y = Erf(h)", "a = Mul(h, three)  y = Erf(a)"],
    "Exp": ["y = Exp(h)"],
    "Expand": [
        "p = GlobalAveragePool(h)  y = Expand(p, to_wide)",
        "y = Expand(h, to_wide)",
        "p = ReduceMean<keepdims=0>(h, chw)  y = Expand(p, to_wide)",
    ],
    "Flatten": [
        "y = Flatten(h)",
        "f = Flatten(h)  r = Relu(f)  y = Gemm<transB=1>(r, v)",
        "f = Flatten(h)  r = Relu(f)  z = Gemm<transB=1>(r, v)  y = Concat<axis=1>(z, f)",
        "y = Flatten<axis=2>(h)",
        "f = Flatten<axis=3>(h)  y = Tanh(f)",
        "p = GlobalAveragePool(h)  y = Flatten(p)",
    ],
    "Floor": ["y = Floor(h)"],
    "Gather": [
        "y = Gather<axis=1>(h, pick)",
        "y = Gather<axis=2>(h, pick)",
        "y = Gather<axis=3>(h, pick_one)",
        "y = Gather<axis=2>(h, pick_grid)",
        "t = Reshape(h, to_tokens)  y = Gather<axis=1>(t, pick_one)",
    ],
    "GatherND": ["y = GatherND(h, corners)", "y = GatherND<batch_dims=1>(h, batch_corners)"],
    "Gelu": ["y = Gelu(h)", 'y = Gelu<approximate="tanh">(h)'],
    "Gemm": [
        "f = Flatten(h)  y = Gemm<transB=1>(f, v, vb)",
        "f = Flatten(h)  y = Gemm(f, vt)",
        "f = Flatten(h)  y = Gemm<alpha=0.5, beta=2.0>(f, vt, u_b)",
        "f = Flatten(h)  y = Gemm<transB=1>(f, v, half)",
        "p = ReduceMean<keepdims=0>(h, hw)  y = Gemm<transB=1>(p, u)",
        "t = Reshape(h, to_batch)  y = Gemm<transA=1>(t, last)",
        "p = ReduceMean<keepdims=0>(h, hw)  y = Gemm<transA=1, alpha=0.5>(p, left_row_1)",
        "p = ReduceMean<keepdims=0>(h, hw)  q = Relu(p)  y = Gemm<transB=1, beta=0.5>(p, q, k)",
        "p = ReduceMean<keepdims=0>(h, hw)  q = Relu(p)  y = Gemm<transA=1>(p, q, p)",
    ],
    "GlobalAveragePool": ["y = GlobalAveragePool(h)"],
    "GlobalMaxPool": ["y = GlobalMaxPool(h)"],
    "Greater": ["q = Greater(h, low)  y = Cast<to=1>(q)"],
    "GreaterOrEqual": ["q = GreaterOrEqual(h, place)  y = Cast<to=1>(q)"],
    "GroupNormalization": [
        "opset 21: y = GroupNormalization<num_groups=2>(h, gamma, beta)",
        (
            "opset 21: t = Reshape(h, to_tokens)  a = Softmax(t)"
            "  y = GroupNormalization<num_groups=2>(a, gamma, beta)"
        ),
    ],
    "HardSigmoid": ["y = HardSigmoid(h)", "y = HardSigmoid<alpha=0.16666667>(h)"],
    "HardSwish": ["y = HardSwish(h)"],
    "Identity": [],
    "InstanceNormalization": [
        "y = InstanceNormalization(h, gamma, beta)",
        "t = Reshape(h, to_tokens)  y = InstanceNormalization<epsilon=0.01>(t, gamma, beta)",
    ],
    "LRN": ["y = LRN<size=3, alpha=0.1, beta=0.7, bias=1.5>(h)"],
    "LayerNormalization": [
        "y = LayerNormalization<axis=1>(h, g_map, b_map)",
        "y = LayerNormalization(h, g_last)",
        "t = Transpose<perm=[0,2,3,1]>(h)  y = LayerNormalization(t, g_last, b_last)",
        (
            "t = Reshape(h, to_tokens)  u = Transpose<perm=[0,2,1]>(t)"
            "  y = LayerNormalization(u, g_last, b_last)"
        ),
    ],
    "LeakyRelu": ["y = LeakyRelu<alpha=0.2>(h)", "y = LeakyRelu(h)"],
    "Less": ["q = Less(h, low)  y = Cast<to=1>(q)"],
    "LessOrEqual": ["r = Tanh(h)  q = LessOrEqual(h, r)  y = Cast<to=1>(q)"],
    "Log": ["a = Exp(h)  b = Add(a, one)  y = Log(b)"],
    "LogSoftmax": ["y = LogSoftmax<axis=1>(h)", "f = Flatten(h)  y = LogSoftmax(f)"],
    "LpNormalization": ["y = LpNormalization<axis=1>(h)", "y = LpNormalization<axis=3, p=1>(h)"],
    "MatMul": [
        "f = Flatten(h)  y = MatMul(f, vt)",
        "y = MatMul(h, last)",
        "t = Reshape(h, to_tokens)  u = Transpose<perm=[0,2,1]>(t)  y = MatMul(u, last)",
        "t = Reshape(h, to_tokens)  u = Transpose<perm=[0,2,1]>(t)  y = MatMul(t, u)",
        "y = MatMul(left, h)",
        "y = MatMul(h, batch)",
        "r = Tanh(h)  u = Transpose<perm=[0,1,3,2]>(r)  y = MatMul(h, u)",
    ],
    "Max": ["y = Max(h, k)", "r = Tanh(h)  y = Max(h, r, low)", "y = Max(h, place)"],
    "Mean": ["r = Tanh(h)  y = Mean(h, r, h)"],
    "Min": ["y = Min(h, k)", "r = Tanh(h)  y = Min(h, r)"],
    "Mish": ["y = Mish(h)"],
    "Mul": [
        "y = Mul(h, c4)",
        "y = Mul(k, h)",
        "p = GlobalAveragePool(h)  q = Sigmoid(p)  y = Mul(h, q)",
        "y = Mul(h, whole)",
        "y = Mul(h, column)",
        "a = Mul(h, place)  y = Add(a, c)",
    ],
    "Neg": ["y = Neg(h)"],
    "Not": ["a = Greater(h, low)  q = Not(a)  y = Cast<to=1>(q)"],
    "Or": ["a = Greater(h, high)  b = Less(h, low)  q = Or(a, b)  y = Cast<to=1>(q)"],
    "PRelu": [
        "y = PRelu(h, slopes)",
        "y = PRelu(h, slope)",
        "y = PRelu(h, slope_map)",
        "y = PRelu(h, slope_line)",
        "p = ReduceMean<keepdims=0>(h, hw)  y = PRelu(p, c8)",
        "p = GlobalAveragePool(h)  y = PRelu(h, p)",
        "t = Reshape(h, to_tokens)  y = PRelu(t, slope)",
    ],
    "Pad": [
        "y = Pad(h, amounts)",
        "y = Pad(h, amounts, half)",
        'y = Pad<mode="reflect">(h, amounts)',
        'y = Pad<mode="edge">(h, amounts)',
        "y = Pad(h, two_amounts, half, hw)",
        "y = Pad(h, cut)",
        # LCE takes a pad before a strided window for SAME, wherever it pads.
        "p = Pad(h, zeros_around)  y = Conv<strides=[2,2]>(p, f3)",
        "p = Pad(h, zeros_around)  y = Conv<strides=[2,2], group=8>(p, depth3)",
        "p = Pad(h, zeros_around, half)  y = Conv<strides=[2,2]>(p, f3)",
        "p = Pad(h, zeros_around)  y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(p)",
        "y = Pad(h, channel_amounts)",
        'opset 19: y = Pad<mode="wrap">(h, amounts)',
    ],
    "Pow": [
        "y = Pow(h, two)",
        "a = Exp(h)  y = Pow(a, half)",
        "y = Pow(h, three)",
        "a = Exp(h)  y = Pow(a, k)",
    ],
    "Reciprocal": ["a = Exp(h)  y = Reciprocal(a)"],
    "ReduceL1": ["y = ReduceL1(h, chw)"],
    "ReduceL2": ["y = ReduceL2<keepdims=0>(h, i1)"],
    "ReduceLogSum": ["a = Exp(h)  y = ReduceLogSum(a, i2)"],
    "ReduceLogSumExp": ["a = Mul(h, big)  y = ReduceLogSumExp(a, i1)"],
    "ReduceMax": [
        "y = ReduceMax(h, hw)",
        "y = ReduceMax<keepdims=0>(h, hw)",
        "y = ReduceMax<keepdims=0>(h, i3)",
        "f = Flatten(h)  y = ReduceMax(f, i1)",
    ],
    "ReduceMean": [
        "y = ReduceMean<keepdims=0>(h, hw)",
        "y = ReduceMean(h, wh)",
        "y = ReduceMean(h, i1)",
        "y = ReduceMean<keepdims=0>(h, i1)",
        "y = ReduceMean<keepdims=0>(h, i2)",
        "y = ReduceMean<keepdims=0>(h, cw)",
        "y = ReduceMean(h)",
        "opset 13: y = ReduceMean<axes=[1], keepdims=0>(h)",
        "y = ReduceMean<keepdims=0>(h, chw)",
        "t = Reshape(h, to_tokens)  y = ReduceMean<keepdims=0>(t, i2)",
        "t = Reshape(h, to_groups)  y = ReduceMean<keepdims=0>(t, i2)",
        "y = ReduceMean<noop_with_empty_axes=1>(h)",
    ],
    "ReduceMin": ["y = ReduceMin(h, i1)"],
    "ReduceProd": ["y = ReduceProd(h, i3)"],
    "ReduceSum": ["y = ReduceSum(h, i1)", "opset 11: y = ReduceSum<axes=[-1], keepdims=0>(h)"],
    "ReduceSumSquare": ["y = ReduceSumSquare(h, hw)"],
    "Relu": ["y = Relu(h)"],
    "Reshape": [
        "y = Reshape(h, to_row)",
        "y = Reshape(h, to_tokens)",
        "y = Reshape(h, to_other_map)",
        "y = Reshape(h, to_batch)",
        "f = Reshape(h, to_row)  y = Reshape(f, to_map)",
        "g = Reshape(h, to_groups)  t = Transpose<perm=[0,2,1,3,4]>(g)  y = Reshape(t, to_map)",
    ],
    "Resize": [
        (
            'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",'
            ' nearest_mode="floor">(h, , x2)'
        ),
        'y = Resize<mode="nearest">(h, , x3_2)',
        'y = Resize<mode="nearest">(h, , x_frac)',
        'y = Resize<mode="nearest", nearest_mode="ceil">(h, , , to_size)',
        'y = Resize<mode="nearest", nearest_mode="floor">(h, , , to_size)',
        (
            'y = Resize<mode="nearest", nearest_mode="round_prefer_ceil",'
            ' coordinate_transformation_mode="align_corners">(h, , x2)'
        ),
        'y = Resize<mode="linear">(h, , x2)',
        'y = Resize<mode="linear">(h, , , to_size)',
        'y = Resize<mode="linear">(h, , x_frac)',
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(h, , x3_2)',
        'y = Resize<mode="linear", coordinate_transformation_mode="asymmetric">(h, , x2)',
        'y = Resize<mode="linear", coordinate_transformation_mode="pytorch_half_pixel">(h, , x2)',
        "opset 18: y = Resize<axes=[3,2]>(h, , two_three)",
    ],
    "Round": ["y = Round(h)"],
    "Selu": ["y = Selu(h)"],
    "Sigmoid": ["y = Sigmoid(h)", "a = Sigmoid(h)  y = Mul(h, a)"],
    "Sign": ["a = Sign(h)  y = Mul(a, k)"],
    "Sin": ["y = Sin(h)"],
    "Slice": [
        "y = Slice(h, st_h, en_h, ax_h)",
        "y = Slice(h, st_h, en_h, ax_h, sp_h)",
        "y = Slice(h, st_back, en_back, ax_h, sp_back)",
        "y = Slice(h, st_c, en_c, i1, sp_c)",
        "f = Flatten(h)  y = Slice(f, st_c, en_c, i1, sp_c)",
        "y = Slice(h, i1, i3, i2)",
    ],
    "Softmax": [
        "y = Softmax<axis=1>(h)",
        "y = Softmax(h)",
        "f = Flatten(h)  y = Softmax(f)",
        "p = ReduceMean<keepdims=0>(h, hw)  y = Softmax<axis=1>(p)",
        "opset 11: y = Softmax(h)",
        "t = Reshape(h, to_tokens)  y = Softmax(t)",
    ],
    "Softplus": ["y = Softplus(h)", "a = Mul(h, big)  y = Softplus(a)"],
    "Softsign": ["y = Softsign(h)"],
    "SpaceToDepth": ["y = SpaceToDepth<blocksize=2>(h)"],
    "Split": [
        "a, b = Split<axis=1>(h, sizes_c)  q = Relu(b)  y = Concat<axis=1>(q, a)",
        "a, b, q = Split<axis=2>(h, sizes)  y = Concat<axis=2>(q, b)",
        "opset 18: a, b = Split<axis=3, num_outputs=2>(h)  y = Sub(a, b)",
        "opset 11: a, b = Split<axis=1, split=[2,6]>(h)  y = Relu(b)",
    ],
    "Sqrt": ["a = Exp(h)  y = Sqrt(a)"],
    "Squeeze": [
        "p = GlobalAveragePool(h)  y = Squeeze(p, hw)",
        "p = ReduceMax(h, i1)  y = Squeeze(p, i1)",
    ],
    "Sub": ["y = Sub(h, c)", "y = Sub(c, h)", "r = Relu(h)  y = Sub(r, h)", "y = Sub(place, h)"],
    "Sum": ["r = Tanh(h)  y = Sum(h, r, c)"],
    "Tanh": ["y = Tanh(h)"],
    "ThresholdedRelu": ["y = ThresholdedRelu<alpha=0.3>(h)"],
    "Tile": ["y = Tile(h, twice)"],
    "TopK": [
        "d = Add(h, whole)  y, i = TopK(d, i3)",
        (
            "d = Add(h, whole)  a, i = TopK<axis=1, largest=0>(d, i2)"
            "  q = Cast<to=1>(i)  y = Add(a, q)"
        ),
        "d = Add(h, whole)  f = Flatten(d)  y, i = TopK(f, i3)",
    ],
    "Transpose": [
        "y = Transpose<perm=[0,1,3,2]>(h)",
        "y = Transpose<perm=[0,2,3,1]>(h)",
        "y = Transpose<perm=[0,3,1,2]>(h)",
        "y = Transpose<perm=[0,2,1,3]>(h)",
        "t = Reshape(h, to_tokens)  y = Transpose<perm=[0,2,1]>(t)",
        (
            "t = Reshape(h, to_tokens)  u = Transpose<perm=[0,2,1]>(t)  q = Softmax(u)"
            "  y = Transpose<perm=[0,2,1]>(q)"
        ),
    ],
    "Unsqueeze": [
        "p = ReduceMean<keepdims=0>(h, hw)  y = Unsqueeze(p, hw)",
        "y = Unsqueeze(h, i2)",
    ],
    "Where": [
        "q = Greater(h, low)  r = Tanh(h)  y = Where(q, h, r)",
        "q = Greater(h, low)  y = Where(q, k, big)",
        "q = Less(h, zero)  y = Where(q, minus, one)",
        "q = Less(h, zero)  y = Where(q, whole, h)",
        "q = GreaterOrEqual(h, zero)  y = Where(q, c, h)",
    ],
    "ConvTranspose": [
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(h, t3, tb)",
        "y = ConvTranspose<strides=[2,2]>(h, t2, tb)",
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(h, t4)",
        "y = ConvTranspose(h, t3, tb)",
        "y = ConvTranspose<pads=[1,1,1,1]>(h, t3)",
        "y = ConvTranspose<strides=[2,3], pads=[0,1,1,0]>(h, t3, tb)",
        "y = ConvTranspose<strides=[3,3], output_padding=[2,1]>(h, t1, tb)",
        "y = ConvTranspose<strides=[2,2], dilations=[2,1], pads=[1,2,0,1]>(h, t3, tb)",
        "y = ConvTranspose<group=2, strides=[2,2], pads=[1,1,1,1]>(h, tg, tb)",
        'y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(h, t3, tb)',
        "y = ConvTranspose<strides=[2,2], output_shape=[13,16]>(h, t3, tb)",
    ],
    "Xor": ["a = Greater(h, low)  b = Less(h, high)  q = Xor(a, b)  y = Cast<to=1>(q)"],
}
ARRAYS |= {
    "axis_1": np.array(1),
    "axis_3": np.array(3),
    "corners": np.array([[[0, 3], [0, -1]], [[0, 0], [0, 2]]]),
    "batch_corners": np.array([[[0, 5, 7], [7, -1, 0]]]),
    "zeros_around": ints(0, 0, 1, 1, 0, 0, 1, 1),
    "f3": numbers(5, 8, 3, 3),
    "depth3": numbers(8, 1, 3, 3),
    "left_row_1": numbers(1, 3),
    "two_three": np.array([2, 3], np.float32),
}
del ARRAYS["out_size"]

# What the operator's fast sample shares one graph: the ordinary float parts of a network.
TYPICAL = [
    "Add", "Clip", "Concat", "Flatten", "GlobalAveragePool", "HardSwish", "LeakyRelu", "MatMul",
    "Mul", "PRelu", "Pad", "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice",
    "Softmax", "Split", "Transpose",
]  # fmt: skip


def stride_of(orientation: str) -> int:
    # PyTorch's padding at stride 2 on an even map is SAME only in a network that is turned.
    return 2 if orientation == "turned" else 1


def network(bodies: list[str], orientation: str, opset: int) -> onnx.ModelProto:
    """x → binary layer → h → each body → y → binary layer; all y and results in one row."""
    stride = stride_of(orientation)
    entry = f"""b = Add(x, before)  i = Sign(b)
        n = Conv<pads=[1,1,1,1], strides=[{stride},{stride}]>(i, w_entry)
        m = Mul(n, entry_scale)  h = Add(m, entry_shift)"""
    nodes = list(parse(entry, "x", [1, 4, 6 * stride, 8 * stride]))
    arrays = {
        "w_entry": signs(8, 4, 3, 3),
        "entry_scale": 0.1,
        "entry_shift": 0.0137,
        "before": 0.25,
    }
    arrays |= {"exit_shift": 0.00771, **ARRAYS}
    rows = []
    for number, body in enumerate(bodies):
        parsed = list(parse(body, "h", [1, 8, 6, 8]))
        rename = {name: f"{name}_{number}" for node in parsed for name in node.output}
        for node in parsed:
            node.input[:] = [rename.get(name, name) for name in node.input]
            node.output[:] = [rename[name] for name in node.output]
        nodes += parsed
        shape = shape_of_last(parsed, f"y_{number}", arrays, opset)
        after, extra, names = finish(number, shape)
        nodes += after
        arrays |= extra
        rows += names
    nodes.append(onnx.helper.make_node("Concat", rows, ["out"], axis=1))
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 4, 6 * stride, 8 * stride])],
        [onnx.helper.make_tensor_value_info("out", 1, [1, "length"])],
        [
            onnx.numpy_helper.from_array(np.asarray(array, narrow(array)), name)
            for name, array in arrays.items()
            if name in used
        ],
    )
    for node in graph.node:
        node.name = node.name or node.output[0]
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10
    )
    return onnx.shape_inference.infer_shapes(model)


def narrow(array) -> np.dtype:
    dtype = np.asarray(array).dtype
    return np.dtype(np.float32) if dtype == np.float64 else dtype


def parse(body: str, source: str, shape: list[int]):
    sizes = ",".join(map(str, shape))
    last = re.findall(r"(\w+) =", body)[-1]
    return onnx.parser.parse_graph(f"g (float[{sizes}] {source}) => ({last}) {{ {body} }}").node


def shape_of_last(nodes, name, arrays, opset) -> tuple[int, ...]:
    used = {item for node in nodes for item in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("h", 1, [1, 8, 6, 8])],
        [onnx.helper.make_tensor_value_info(name, 1, None)],
        [
            onnx.numpy_helper.from_array(np.asarray(array, narrow(array)), key)
            for key, array in arrays.items()
            if key in used
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    import onnxruntime

    model.ir_version = 10
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([name], {"h": np.zeros((1, 8, 6, 8), np.float32)})[0].shape


def finish(number: int, shape: tuple[int, ...]):
    """A binary layer behind y, and both as rows."""
    make = onnx.helper.make_node
    y, row = f"y_{number}", f"row_{number}"
    shape_name, arrays = f"flat_{number}", {f"flat_{number}": ints(1, -1)}
    nodes = [make("Reshape", [y, shape_name], [row])]
    # Zeros are no fair question to a sign.
    nodes.append(make("Add", [y, "exit_shift"], [f"shifted_{number}"]))
    nodes.append(make("Sign", [f"shifted_{number}"], [f"sign_{number}"]))
    if len(shape) == 4 and shape[0] == 1:
        arrays[f"weight_{number}"] = signs(4, shape[1], 1, 1)
        nodes.append(make("Conv", [f"sign_{number}", f"weight_{number}"], [f"layer_{number}"]))
    elif len(shape) == 2 and shape[0] == 1:
        arrays[f"weight_{number}"] = signs(shape[1], 4)
        nodes.append(make("MatMul", [f"sign_{number}", f"weight_{number}"], [f"layer_{number}"]))
    else:
        return nodes[:1], arrays, [row]
    nodes.append(make("Reshape", [f"layer_{number}", shape_name], [f"end_{number}"]))
    return nodes, arrays, [row, f"end_{number}"]


def by_opset(bodies: list[str]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for body in bodies:
        asked = re.match(r"opset (\d+): ", body)
        plain = body[asked.end() :] if asked else body
        groups.setdefault(int(asked.group(1)) if asked else 20, []).append(plain)
    return groups


def read(bodies: list[str], orientation: str, opset: int, folder):
    onnx.save(network(bodies, orientation, opset), folder / "model.onnx")
    return load_graph(folder / "model.onnx")


def prove(graph, written) -> None:
    inputs = seeded_inputs(tuple(graph.graph.inputs[0].shape), 2, 0)
    seen = written.execute(inputs)
    layers = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
    parity = compare(graph, inputs, Observation(seen.outputs, layers), "LCE")
    assert parity.unexplained_flips == 0


def test_every_operator_of_the_table_has_a_case() -> None:
    assert sorted(BODIES) == sorted(OPERATORS)
    for operator, bodies in BODIES.items():
        assert bodies or operator == "Identity"  # that one is gone when a graph is read
        assert all(f"= {operator}" in body for body in bodies)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ["upright", "turned"])
@pytest.mark.parametrize("operator", [name for name in BODIES if BODIES[name]])
def test_an_operator_computes_what_onnx_runtime_computes(
    operator, orientation, lce_writer, tmp_path
) -> None:
    for opset, bodies in by_opset(BODIES[operator]).items():
        graph = read(bodies, orientation, opset, tmp_path)
        assert TARGET.refusals(graph) == []
        prove(graph, lce_writer.write(TARGET.lower(graph), tmp_path))


@pytest.fixture(scope="module", params=["upright", "turned"])
def typical(request, lce_writer, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    graph = read([BODIES[name][0] for name in TYPICAL], request.param, 20, folder)
    return graph, lce_writer.write(TARGET.lower(graph), folder)


def test_typical_operators_compute_what_onnx_runtime_computes(typical) -> None:
    prove(*typical)


_PREDICT = """
import sys
sys.modules["bibench_deploy"] = sys.modules["bibench_train"] = None
import larq, numpy as np, tensorflow as tf
model = tf.keras.models.load_model(sys.argv[1])
assert not [layer for layer in model.layers if type(layer).__name__ == "Lambda"]
np.save(sys.argv[3], model(np.load(sys.argv[2])).numpy())
"""


@pytest.mark.parametrize("typical", ["turned"], indirect=True)
def test_the_keras_model_loads_with_larq_alone_and_computes_the_same(typical, tmp_path) -> None:
    graph, written = typical
    inputs = seeded_inputs(tuple(graph.graph.inputs[0].shape), 1, 0)
    np.save(tmp_path / "inputs.npy", inputs.transpose(0, 2, 3, 1))
    files = [written.files["keras"], tmp_path / "inputs.npy", tmp_path / "outputs.npy"]
    subprocess.run(
        [sys.executable, "-c", _PREDICT, *map(str, files)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        capture_output=True,
        timeout=300,
        cwd=tmp_path,
    )
    outputs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(outputs, written.execute(inputs).outputs, rtol=1e-4, atol=1e-4)
