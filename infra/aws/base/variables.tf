variable "name" {
  description = "Prefix of every name. Buckets get the account's number behind it."
  type        = string
  default     = "cloister"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "name: 3 to 22 of a-z, 0-9 and -, beginning with a letter; it becomes part of bucket names."
  }
}

variable "region" {
  description = "AWS region of everything."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: as eu-central-1."
  }
}

variable "availability_zones" {
  description = "Names of the zones to spread over, all of the region. Check that each offers the instance type."
  type        = list(string)

  validation {
    condition     = length(var.availability_zones) >= 2 && length(var.availability_zones) <= 4 && length(distinct(var.availability_zones)) == length(var.availability_zones)
    error_message = "availability_zones: 2 to 4 different ones; with one, a zone's failure is the service's."
  }

  validation {
    condition     = alltrue([for zone in var.availability_zones : startswith(zone, var.region)])
    error_message = "availability_zones: not of this region."
  }
}

variable "vpc_cidr" {
  description = "Address range of the VPC; must not overlap with networks it will be peered with (callers, key broker)."
  type        = string
  default     = "10.77.0.0/20"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) <= 22, false)
    error_message = "vpc_cidr: an IPv4 range of /22 or larger."
  }
}

variable "key_administrators" {
  description = "IAM roles (or users) that manage the model key and change its policy; they cannot decrypt. Whoever runs this is one of them."
  type        = set(string)

  validation {
    condition     = length(var.key_administrators) > 0 && alltrue([for arn in var.key_administrators : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[!-)+-~]+$", arn))])
    error_message = "key_administrators: at least one ARN of an IAM role or user; no wildcard, no account root."
  }
}

variable "publishers" {
  description = "IAM roles (or users) that upload sealed models and releases, and wrap model keys (kms:Encrypt)."
  type        = set(string)

  validation {
    condition     = length(var.publishers) > 0 && alltrue([for arn in var.publishers : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[!-)+-~]+$", arn))])
    error_message = "publishers: at least one ARN of an IAM role or user; no wildcard, no account root."
  }

  validation {
    condition     = length(setintersection(var.publishers, var.key_administrators)) == 0
    error_message = "publishers: whoever changes the key's policy must not also be one of those who use the key."
  }
}

variable "tags" {
  description = "Tags for everything."
  type        = map(string)
  default     = {}
}
