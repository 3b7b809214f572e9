variable "instance_type" {
  description = "A type with Nitro Enclaves support, x86-64 as the enclave's image is. For candle on processors: recent c7i, m7i, r7i."
  type        = string
  default     = "m7i.2xlarge"
}

variable "enclave_cpu_count" {
  description = "vCPUs taken from the instance for the enclave. With hyper-threading whole cores: an even number. At least 2 stay with the host."
  type        = number
  default     = 6

  validation {
    condition     = var.enclave_cpu_count >= 2 && var.enclave_cpu_count % 2 == 0
    error_message = "enclave_cpu_count: an even number from 2 on; the second thread of a core cannot stay with the host."
  }
}

variable "enclave_memory_mib" {
  description = "Memory taken from the instance for the enclave, in huge pages: at least 4 times the image, and the weights, and what a full house of requests needs."
  type        = number
  default     = 16384

  validation {
    condition     = var.enclave_memory_mib >= 512 && var.enclave_memory_mib % 1024 == 0
    error_message = "enclave_memory_mib: a multiple of 1024, so that pages of 1 GiB can serve; the allocator falls back to 2 MiB ones."
  }
}

variable "fleet" {
  description = "Number of hosts, and the flows (one per connected gateway) one host should have before another is added. 0: no scaling."
  type = object({
    min            = number
    max            = number
    flows_per_host = optional(number, 0)
  })
  default = { min = 2, max = 4 }

  validation {
    condition     = var.fleet.min >= 1 && var.fleet.max >= var.fleet.min && var.fleet.max <= 100 && var.fleet.flows_per_host >= 0
    error_message = "fleet: 1 <= min <= max <= 100."
  }
}

variable "boot_seconds" {
  description = "From launch to /readyz: packages are fetched, the image starts, keys come, weights are verified and loaded. Longer for larger models."
  type        = number
  default     = 900

  validation {
    condition     = var.boot_seconds >= 120 && var.boot_seconds <= 7200
    error_message = "boot_seconds: 120 to 7200."
  }
}

variable "disk_gib" {
  description = "Root volume: packages, the image, Amazon Linux."
  type        = number
  default     = 64

  validation {
    condition     = var.disk_gib >= 16 && var.disk_gib <= 2048
    error_message = "disk_gib: 16 to 2048."
  }
}

data "aws_ec2_instance_type" "this" {
  instance_type = var.instance_type

  lifecycle {
    postcondition {
      condition     = self.nitro_enclaves_support == "supported" && contains(self.supported_architectures, "x86_64")
      error_message = "instance_type: no Nitro Enclaves, or not x86-64."
    }
    postcondition {
      condition     = self.default_vcpus - var.enclave_cpu_count >= 2
      error_message = "enclave_cpu_count: leave 2 vCPUs to the host."
    }
    postcondition {
      condition     = self.memory_size - var.enclave_memory_mib >= 2048
      error_message = "enclave_memory_mib: leave 2 GiB to the host."
    }
  }
}
