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
    assert tested.summary("top1") == {
        "top1": 0.853,
        "test_top1": 0.84,
        "macs": 23_600_000,
        "params": 1_200_000,
    }


def test_a_start_with_a_new_head_says_so_and_another_lacks_the_field() -> None:
    assert "head_images" not in START.to_json()
    fitted = replace(START, head_images=4_093)
    line = "the start, with a head fitted to 4,093 training images: 0.853 on validation,"
    assert str(fitted) == f"{line} 23.6 M MACs"
    assert fitted.to_json() == {**START.to_json(), "head_images": 4_093}
    assert Start.from_json(fitted.to_json()) == fitted
    assert fitted.summary("top1") == START.summary("top1")
