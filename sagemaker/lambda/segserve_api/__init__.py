"""The web API in front of a SageMaker endpoint: an AWS Lambda function behind API Gateway. Needs boto3 only."""
