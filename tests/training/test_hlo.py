"""What a program moves, read from its text: drawn for the TPU, and compiled here."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from imagenet_jax.training import hlo, parallel

TPU = """HloModule jit_train_step, is_scheduled=true

%fused (p: bf16[8,64]) -> bf16[8,64] {
  %p = bf16[8,64]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %half = bf16[8,64]{1,0:T(8,128)(2,1)} multiply(%p, %p)
}

%body (s: (s32[], f32[256])) -> (s32[], f32[256]) {
  %s = (s32[], f32[256]{0:T(256)}) parameter(0)
  %x = f32[256]{0:T(256)} get-tuple-element(%s), index=1
  ROOT %twice = f32[256]{0:T(256)} add(%x, %x), metadata={op_name="jit(train_step)/while/body/add"}
}

ENTRY %main.3_spmd (a: bf16[8,64], w: f32[256]) -> (bf16[8,64], /*index=1*/f32[256]) {
  %a = bf16[8,64]{1,0:T(8,128)(2,1)} parameter(0)
  %w = f32[256]{0:T(256)} parameter(1)
  %copy-start = (bf16[8,64]{1,0:T(8,128)(2,1)S(1)}, bf16[8,64]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %mul_fusion = (bf16[8,64]{1,0:T(8,128)(2,1)}, f32[]{:T(128)S(6)}) fusion(%copy-done, %w, %w), kind=kLoop, \
calls=%fused, metadata={op_name="jit(train_step)/shard_map/transpose(jvp(Net))/layer1/bn1/mul" stack_frame_id=3}
  %all-reduce = f32[256]{0:T(256)S(1)} all-reduce(%w), channel_id=1, to_apply=%fused
  %loop = (s32[], f32[256]{0:T(256)}) while(%w), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = (bf16[8,64]{1,0:T(8,128)(2,1)}, f32[256]{0:T(256)}) tuple(%mul_fusion, %w)
}
"""


def test_what_lies_on_the_chip_is_not_moved_and_tiles_are_whole():
    moved = {each.opcode: each for each in hlo.traffic(*hlo.parse(TPU))}
    assert moved["fusion"] == (8 * 128 * 2 + 256 * 4, "fusion", "layer1/bn1/mul, backward")  # w once, its result
    assert moved["copy"].bytes == 8 * 128 * 2  # read only: it goes to the chip
    assert moved["all-reduce"].bytes == 256 * 4
    assert moved["add"] == (3 * 2 * 256 * 4, "add", "add")  # the loop runs three times
    assert len(moved) == 4  # the inside of a fusion, parameters and tuples move nothing
    assert hlo.collectives(hlo.parse(TPU)[0]) == {"all-reduce": 256 * 4}


@pytest.mark.parametrize("op_name, layer", [
    ("jit(train_step)/shard_map/jvp(ResNet)/layer2_0/conv1/conv", "layer2_0/conv1/conv"),
    ("jit(train_step)/shard_map/transpose(jvp(ResNet))/cond/branch_0_fun/select_and_scatter",
     "select_and_scatter, backward"),
    ("jit(train_step)/shard_map/jvp(ResNet)/jit(relu)/max", "relu/max"),
    ("jit(train_step)/shard_map/jvp()/sub", "sub"),
    ("jit(train_step)/shard_map", ""),
])
def test_operations_are_called_as_the_layers_are(op_name, layer):
    assert hlo.layer_of(op_name) == layer


def test_a_program_of_this_machine_is_read():
    layout = parallel.make_layout("shard_map")
    devices = len(layout.devices)

    def step(state, batch):
        gradient = jax.grad(lambda w: jnp.sum(jnp.tanh(batch @ w) ** 2))(state)
        return state - jax.lax.psum(gradient, "batch"), jnp.zeros(())

    mapped = jax.shard_map(step, mesh=layout.mesh, in_specs=(P(), P("batch")), out_specs=P(), check_vma=False)
    compiled = jax.jit(mapped).lower(jnp.ones((32, 16)), jnp.ones((8 * devices, 32))).compile()
    computations, entry = hlo.parse(compiled.as_text())
    assert hlo.collectives(computations) == {"all-reduce": 32 * 16 * 4}
    moved = hlo.traffic(computations, entry)
    product = next(each for each in moved if each.opcode == "dot")
    assert product == (4 * (8 * 32 + 8 * 16 + 32 * 16), "dot", "transpose, backward")  # batch, gradient; weights'
    assert moved[0] == (3 * 4 * 32 * 16, "fusion", "sub")
