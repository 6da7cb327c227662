"""Checks challenge annotations: counts, malformed lines, agreement with the ground truth."""

import argparse


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", metavar="DIR", help="folder of <sequence>/<sequence>.jsonl files")
    parser.add_argument("--data", metavar="ROOT", help="folder of the sequences, or of train, val and test")
    arguments = parser.parse_args()

    from hiptrack.data.annotation_report import check_annotations, format_report

    report = check_annotations(arguments.directory, arguments.data)
    print(format_report(report))
    return 1 if report.problems else 0
