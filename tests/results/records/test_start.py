from dataclasses import replace

from sharedattn.results.records import Start

START = Start(
    weights_sha256="w" * 64, macs=23_600_000, params=1_200_000, top1=0.853, num_images=300
)


def test_a_start_is_told_in_one_line() -> None:
    line = "the start, as it came: 0.853 on validation, 23.6 M MACs"
    assert str(START) == line
    tested = replace(START, test_top1=0.84, num_test_images=150)
    assert str(tested) == line.replace("validation,", "validation, 0.840 on test,")
    assert Start.from_json(tested.to_json()) == tested
    assert tested.summary() == {
        "top1": 0.853,
        "test_top1": 0.84,
        "macs": 23_600_000,
        "params": 1_200_000,
    }
