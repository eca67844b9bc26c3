package org.crac;

/** There is an image, but resources failed afterwards: the reasons are suppressed exceptions. */
public class RestoreException extends Exception {
    private static final long serialVersionUID = 1L;

    /** Without a text. */
    public RestoreException() {}

    /**
     * With a text.
     *
     * @param message the text
     */
    public RestoreException(String message) {
        super(message);
    }
}
