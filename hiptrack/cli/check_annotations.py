"""Checks challenge annotations: counts, malformed lines, agreement with the ground truth."""

import argparse

from hiptrack import config


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", metavar="DIR", help="folder of <sequence>/<sequence>.jsonl files")
    parser.add_argument("--data", metavar="ROOT", help="folder of the sequences, or of train, val and test")
    config.add_arguments(parser)
    arguments = config.parse_args(parser)

    from hiptrack.data.annotation_report import check_annotations, format_report

    config.load(
        arguments.gin, ["check_annotations.taxonomy=@Taxonomy()", *arguments.overrides], root="check_annotations"
    )
    report = check_annotations(arguments.directory, arguments.data)
    print(format_report(report))
    return 1 if report.problems else 0
