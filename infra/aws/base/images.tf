variable "images" {
  description = <<-EOT
    Enclave images that may use the model key, as `cloister measure` tells their registers. In lower-case hex. pcr3 (role of the
    parent) and pcr8 (signing certificate) narrow further; pcr4 names one instance and has no place in a fleet's policy.
  EOT

  type = list(object({
    pcr0 = string
    pcr1 = string
    pcr2 = string
    pcr3 = optional(string)
    pcr8 = optional(string)
  }))

  validation {
    # A key policy holds 32 KiB.
    condition     = length(var.images) >= 1 && length(var.images) <= 24 && length(distinct(var.images)) == length(var.images)
    error_message = "images: 1 to 24 different ones; take the retired ones out."
  }

  validation {
    condition     = alltrue([for image in var.images : alltrue([for pcr in values(image) : pcr == null || can(regex("^[0-9a-f]{96}$", pcr))])])
    error_message = "images: each register is 96 hex digits in lower case, as cloister measure prints it."
  }

  validation {
    condition     = alltrue([for image in var.images : alltrue([for pcr in values(image) : pcr == null || try(pcr != format("%096d", 0), true)])])
    error_message = "images: an all-zero register is what every debug enclave reports; its memory can be read from outside."
  }
}
