"""Reports of jsonargparse, as it writes them, and what is left of them."""

from lightning_llmopt.configs.refusals import Complaint, complaints, explain

UNION = """Parser key "trainer.callbacks":
  Does not validate against any of the Union subtypes
  Subtypes: [list[lightning.pytorch.callbacks.callback.Callback], <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'lightning_llmopt.callbacks.GradientNormClip':
        Parser key "max_norm":
          Expected a <class 'float'>. Got value: abc
    - Not a valid subclass of Callback
      Subclass types expect one of:
      - a class path (str)
      - a dict with class_path entry
    - Expected a <class 'NoneType'>
  Given value type: <class 'list'>
  Given value: [{'class_path': 'GradientNormClip', 'init_args': {'max_norm': 'abc'}}]
"""


def test_the_leaf_that_was_meant_is_found_in_its_place():
    place = ("trainer.callbacks", "lightning_llmopt.callbacks.GradientNormClip", "max_norm")
    assert next(complaints(UNION)) == Complaint(place, "Expected a <class 'float'>. Got value: abc")
    assert explain(UNION) == "trainer.callbacks > GradientNormClip > max_norm: must be a float, got 'abc'."


def test_several_faults_are_several_lines_and_each_is_said_once():
    report = "Errors:\n  - floor is bad.\n  - Expected a <class 'str'>\n  - floor is bad.\n  - b is bad."
    assert explain(report) == "floor is bad.\nb is bad."


def test_what_is_not_understood_is_left_as_it_is():
    assert explain("Something else happened.") == "Something else happened."
    assert explain("") == ""


def test_a_value_of_none_of_the_types_names_them():
    kinds = ["    - Expected a <class 'int'>", "    - Expected a <class 'NoneType'>"]
    report = "\n".join(['Parser key "a":', "  Errors:", *kinds, "  Given value: x"])
    assert explain(report) == "a: must be one of the types int, null, got 'x'."
