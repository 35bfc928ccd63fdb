from benchmarks.tpu import reading

HLO = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%turns (p: (s32[], f32[4])) -> pred[] {
  %p = (s32[], f32[4]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] constant(8)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%data (p: (s32[], f32[4])) -> pred[] {
  %x = f32[4] get-tuple-element(%p), index=1
  %most = f32[] all-reduce(%x), channel_id=1, to_apply=%add
  ROOT %more = pred[] compare(%most, %one), direction=GT
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %sum.1 = f32[4] all-reduce(%x), channel_id=2, to_apply=%add
}

%early (x: f32[2]) -> f32[4] {
  ROOT %g = f32[4] all-gather(%x), channel_id=3, frontend_attributes={chain_id="0"}
}

%late (x: f32[2]) -> f32[4] {
  ROOT %g.1 = f32[4] all-gather(%x), channel_id=3, frontend_attributes={chain_id="0"}
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %counted = (s32[], f32[4]) while(%t), condition=%turns, body=%body
  %open = (s32[], f32[4]) while(%t), condition=%data, body=%add
  %a.1 = f32[4] fusion(%x), calls=%early
  %b.1 = f32[4] fusion(%x), calls=%late
}
"""


def test_collectives_are_counted_where_they_are():
    found = reading.collectives(HLO, steps=False)
    assert found.count == {"all-reduce": 2, "all-gather": 1}
    assert (found.in_open_loops, found.in_counted_loops) == (1, 1)
    assert found.bytes == 4 * (4 + 1 + 4)
    assert reading.collectives(HLO, steps=True).in_counted_loops == 0


def test_what_fills_a_tile_is_padding():
    line = "  %e = f32[4,100]{1,0:T(8,128)} exponential(%x)"
    assert reading.padding(line) == 1 - 400 / (8 * 128)


def test_products_without_a_precision_have_the_default():
    text = "stablehlo.dot_general %a, %b, precision = [HIGHEST, HIGHEST]\n" * 2
    text += "stablehlo.dot_general %a, %b\n"
    assert reading.precisions(text) == {"HIGHEST": 2, "DEFAULT": 1}
