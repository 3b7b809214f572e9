output "enclave" {
  description = "`enclave` of gateway.toml."
  value       = "tcp://${aws_lb.this.dns_name}:${local.relay}"
}

output "sessions" {
  description = "A shell on a host; who opened it is in CloudTrail. It shows what a host sees: ciphertext."
  value       = "aws ssm start-session --region ${var.base.region} --target INSTANCE"
}

output "account" {
  description = "The account all of this is in."
  value       = data.aws_caller_identity.this.account_id
}
