package com.example.greetings;

import java.io.StringReader;
import java.io.StringWriter;
import javax.xml.transform.Templates;
import javax.xml.transform.TransformerException;
import javax.xml.transform.TransformerFactory;
import javax.xml.transform.stream.StreamResult;
import javax.xml.transform.stream.StreamSource;
import org.springframework.http.MediaType;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RestController;

@RestController
public class GreetingsController {
    private static final String CATALOGUE = catalogue(200);

    private final Templates stylesheet;

    public GreetingsController() throws TransformerException {
        var source = getClass().getResource("/greetings.xsl").toString();
        stylesheet = TransformerFactory.newInstance().newTemplates(new StreamSource(source));
    }

    @GetMapping(value = "/", produces = MediaType.TEXT_PLAIN_VALUE)
    public String greet() throws TransformerException {
        return transform(CATALOGUE);
    }

    @PostMapping(value = "/transform", produces = MediaType.TEXT_PLAIN_VALUE)
    public String transform(@RequestBody String document) throws TransformerException {
        var result = new StringWriter();
        var source = new StreamSource(new StringReader(document));
        stylesheet.newTransformer().transform(source, new StreamResult(result));
        return result.toString();
    }

    private static String catalogue(int books) {
        var text = new StringBuilder("<catalogue>");
        for (int i = 1; i <= books; i++) {
            text.append("<book year='").append(1900 + i * 37 % 100).append("'><title>Volume ");
            text.append(i).append("</title></book>");
        }
        return text.append("</catalogue>").toString();
    }
}
