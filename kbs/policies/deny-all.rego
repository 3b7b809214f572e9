# Nothing is released. What a broker does that has no other policy.
package policy

default allow := false
