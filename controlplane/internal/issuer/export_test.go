package issuer

// WaitForEver has requests to authorities wait for their answers without a limit.
func (s *Service) WaitForEver() {
	for _, c := range s.clients {
		c.http.Timeout = 0
	}
}
