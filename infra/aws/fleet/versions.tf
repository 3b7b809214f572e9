# What costs by the hour: instances, load balancer, interface endpoints. Nothing in here is worth keeping.
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = var.base.region

  default_tags {
    tags = merge({ project = var.base.name }, var.tags)
  }
}

data "aws_caller_identity" "this" {}
