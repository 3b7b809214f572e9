data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null ? 1 : 0
  name  = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

variable "ami_id" {
  description = "Amazon Linux 2023, x86-64. Without it the newest at each plan, which then replaces hosts: pin it where that surprises."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "ami_id: ami- and hex digits."
  }
}

locals {
  user_data = templatefile("${path.module}/user_data.sh.tftpl", {
    allocator = templatefile("${path.module}/allocator.yaml.tftpl", { cpu_count = var.enclave_cpu_count, memory_mib = var.enclave_memory_mib })
    host_toml = templatefile("${path.module}/host.toml.tftpl", {
      relay       = local.relay
      control     = local.control
      broker      = "${var.broker.host}:${var.broker.port}"
      kms_release = var.kms_release
      region      = var.base.region
    })
    host_unit    = file("${path.module}/cloister-host.service")
    enclave_unit = templatefile("${path.module}/cloister-enclave.service.tftpl", { cpu_count = var.enclave_cpu_count, memory_mib = var.enclave_memory_mib })
    bucket       = var.base.models_bucket
    region       = var.base.region
    release      = var.release
    packages     = sort(var.packages)
  })
}

resource "aws_launch_template" "this" {
  name                   = var.base.name
  image_id               = var.ami_id == null ? data.aws_ssm_parameter.ami[0].insecure_value : var.ami_id
  instance_type          = data.aws_ec2_instance_type.this.instance_type
  user_data              = base64encode(local.user_data)
  update_default_version = true
  ebs_optimized          = true

  enclave_options {
    enabled = true
  }

  iam_instance_profile {
    name = var.base.instance_profile
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  network_interfaces {
    associate_public_ip_address = false
    delete_on_termination       = true
    security_groups             = [aws_security_group.this["host"].id]
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      encrypted             = true
      volume_type           = "gp3"
      volume_size           = var.disk_gib
      delete_on_termination = true
    }
  }

  monitoring {
    enabled = true
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.base.name}-host", release = var.release.version }
  }
}
