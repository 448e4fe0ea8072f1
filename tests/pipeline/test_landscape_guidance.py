"""Coefficients of the guidance terms: DreamVideo Eq. 5 and InstructPix2Pix Eq. 3 in closed form."""

from pipeline_landscape_video.landscape_guidance import guidance_terms


def test_coefficients_of_the_guidance():
    assert guidance_terms(8, 1.5, True, True) == {(False, False): -7, (True, False): 6.5, (True, True): 1.5}
    assert guidance_terms(3, 3, True, True) == {(False, False): -2, (True, True): 3}  # joint guidance
    assert guidance_terms(1, 1, True, True) == {(True, True): 1}
    assert guidance_terms(8, 0, True, True) == {(False, False): -7, (True, False): 8}
    assert guidance_terms(1, 1.5, True, True) == {(True, False): -0.5, (True, True): 1.5}
    assert guidance_terms(8.3, 1.7, True, False) == {(False, False): 1 - 8.3, (True, False): 8.3}
    assert guidance_terms(8.3, 1.7, False, True) == {(False, False): 1 - 1.7, (False, True): 1.7}
    assert guidance_terms(8.3, 1.7, False, False) == {(False, False): 1}


def test_coefficients_of_the_guidance_with_the_image_first():
    def coefficients(*arguments):
        return guidance_terms(*arguments, "picture_first")

    assert coefficients(8, 1.5, True, True) == {(False, False): -0.5, (False, True): -6.5, (True, True): 8}
    assert coefficients(3, 3, True, True) == guidance_terms(3, 3, True, True)
    assert coefficients(1, 1, True, True) == {(True, True): 1}
    assert coefficients(0, 1.5, True, True) == {(False, False): -0.5, (False, True): 1.5}
    assert coefficients(8, 1, True, True) == {(False, True): -7, (True, True): 8}
    for has_text, has_image in ((True, False), (False, True), (False, False)):
        assert coefficients(8.3, 1.7, has_text, has_image) == guidance_terms(8.3, 1.7, has_text, has_image)
