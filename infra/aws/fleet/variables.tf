variable "base" {
  description = "Output `base` of ../base; scripts/aws-up passes it on."
  type = object({
    name              = string
    region            = string
    vpc_id            = string
    subnet_ids        = list(string)
    s3_prefix_list_id = string
    models_bucket     = string
    instance_profile  = string
    role_arn          = string
    model_key_arn     = string
  })
}

variable "release" {
  description = "What hosts run: releases/<version>/host and releases/<version>/app.eif of the models bucket, by SHA-256."
  type = object({
    version     = string
    host_sha256 = string
    eif_sha256  = string
  })

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", var.release.version))
    error_message = "release.version: up to 64 of A-Z a-z 0-9 . _ -."
  }

  validation {
    condition     = alltrue([for digest in [var.release.host_sha256, var.release.eif_sha256] : can(regex("^[0-9a-f]{64}$", digest))])
    error_message = "release: digests are 64 hex digits in lower case, as sha256sum prints them."
  }
}

variable "packages" {
  description = "Sealed packages to serve: directories under models/ of the bucket, as enclave.toml's [[models]] names them."
  type        = set(string)

  validation {
    condition     = length(var.packages) > 0 && alltrue([for name in var.packages : can(regex("^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$", name))])
    error_message = "packages: at least one name of A-Z a-z 0-9 . _ -, without a leading dot."
  }
}

variable "broker" {
  description = "The key broker (kbs): host name, port, and the address ranges it answers from."
  type = object({
    host  = string
    port  = optional(number, 8443)
    cidrs = set(string)
  })

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", var.broker.host)) && var.broker.port >= 1 && var.broker.port <= 65535
    error_message = "broker: a host name in lower case and a port."
  }

  validation {
    condition     = length(var.broker.cidrs) > 0 && alltrue([for cidr in var.broker.cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "broker.cidrs: at least one IPv4 range, and not the whole internet."
  }
}

variable "callers" {
  description = "Address ranges of the callers' gateways. Who may ask is decided by certificate, in the enclave; this only keeps scanners out."
  type        = set(string)

  validation {
    condition     = length(var.callers) > 0 && alltrue([for cidr in var.callers : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "callers: at least one IPv4 range, and not the whole internet."
  }
}

variable "kms_release" {
  description = "True adds an interface endpoint for KMS and an egress of the host to it, for enclaves that get keys from KMS instead of kbs."
  type        = bool
  default     = false
}

variable "alarm_topics" {
  description = "SNS topics that are told of alarms; with none, alarms only show in CloudWatch."
  type        = set(string)
  default     = []
}

variable "tags" {
  description = "Tags for everything."
  type        = map(string)
  default     = {}
}
